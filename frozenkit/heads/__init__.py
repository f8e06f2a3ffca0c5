"""Arrays → a fitted map: linear, ridge, softmax, nearest-neighbour, prototypical and small trained heads. Nothing
here has seen an image or a backbone."""
