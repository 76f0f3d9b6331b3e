"""The API for people and programs. The only room that speaks HTTP."""
