"""What report.html and report.pdf are made of: vector drawing, wording, the 3D scene, the page and its viewer."""
