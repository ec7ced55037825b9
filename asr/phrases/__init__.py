"""Phrase lists ('hotwords'): their files, their spellings in a vocabulary, and how texts move through them."""
