"""Parts of report.html and report.pdf: canvases, 3D scene, page and viewer; its door is `scene.scene`."""
