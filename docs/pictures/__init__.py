"""The pictures of docs/methods.md, drawn from what the code does: `python -m docs.pictures`."""
