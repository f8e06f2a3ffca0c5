"""Networks in: pretrained backbones with their own preprocessing, where their weights come from, and what leaves
their layers. The proof that a backbone stayed frozen is here too."""
