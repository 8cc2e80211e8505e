"""Raw documents -> clean documents."""
