"""What report.html and report.pdf are made of: canvases, 3D scene, page and viewer; the door is `scene.scene`."""
