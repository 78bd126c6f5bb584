"""What `build_web.py` is made of: sources, pictures, captions, pages and the planted cases."""
