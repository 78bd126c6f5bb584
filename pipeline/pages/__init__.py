"""Read the images of web pages, and of what Common Crawl lists of them."""
