"""What the docks of one viewer share: the slide, the networks, the masks, the jobs; it draws nothing.

What is here outlives docks and windows. So its signals are connected to methods of the QObject that receives them, or
with :func:`~napari_kdseg.widgets.state.connections.connect`: these connections end with their receiver. A lambda, or a
function inside a function, would be called on widgets that are gone.
"""
