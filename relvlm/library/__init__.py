"""A model and photos of one's own: score texts, search a folder, a local page to try it on."""
