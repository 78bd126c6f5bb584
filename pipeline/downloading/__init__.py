"""The images of one part on their way from the web or an archive into a tar and a table."""
