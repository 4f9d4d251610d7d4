"""What is stored, a file for each kind of record. Functions take an open ``Connection`` and never commit."""
