"""Pictures and masks that come in, and what is shown of pictures on the way: numpy and Pillow alone."""
