"""mmdetection and mmsegmentation as engines: a gate to them, their operators on torchvision, our backbones in them."""
