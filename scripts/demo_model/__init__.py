"""Training of the demo model: a miniature SDXL that draws captioned coloured shapes, its refiner and its student."""
