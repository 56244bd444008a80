"""What other libraries are told of the classes here, once a program imports them (`_when_imported.py`)."""
