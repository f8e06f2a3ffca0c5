"""What is shipped: a frozen network and the head on it as one module, which predicts, is saved and exported.

The one room that knows both sides of the waist.
"""
