"""Images in: datasets of images with labels, folders read from disk, sets by name, and shifts of the domain.
Everything here is above the waist; nothing here knows a network."""
