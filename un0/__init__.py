"""Un-0: images from coupled Kuramoto oscillators."""
