"""Pages, pictures and notifications for people."""
