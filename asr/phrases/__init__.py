"""Phrase lists ('hotwords'): their files, their spellings in a vocabulary, and where texts stand in them."""
