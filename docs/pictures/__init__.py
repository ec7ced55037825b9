"""The pictures of docs/methods.md, drawn by running the code: `python -m docs.pictures`."""
