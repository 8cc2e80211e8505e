"""What rows of data sets look like, and what each kind becomes here: fields by their names, messages, demonstrations,
comparisons and thumbs."""
