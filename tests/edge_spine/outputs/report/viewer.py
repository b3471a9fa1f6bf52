"""The page in a browser, and what the tests do with it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from selenium import webdriver
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By

Picture = NDArray[np.uint8]
SOFTWARE_WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")


class Viewer:
    """The 3D view of an opened page."""

    def __init__(self, browser: webdriver.Chrome) -> None:
        self.browser = browser
        self.canvas = browser.find_element(By.CSS_SELECTOR, "#viewer canvas")

    def picture(self) -> Picture:
        """What the canvas shows, as BGR, once two frames have passed."""
        self.browser.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 60)))"
        )
        self.browser.execute_script("document.querySelector('.overlay').hidden = true")
        shown = cv2.imdecode(np.frombuffer(self.canvas.screenshot_as_png, np.uint8), cv2.IMREAD_COLOR)
        self.browser.execute_script("document.querySelector('.overlay').hidden = false")
        # without the frame of the focus
        return np.asarray(shown[6:-6, 6:-6], np.uint8)

    def press(self, *keys: str) -> None:
        self.browser.execute_script("arguments[0].focus()", self.canvas)
        ActionChains(self.browser).send_keys(*keys).perform()

    def pressed(self, selector: str) -> bool:
        button = self.browser.find_element(By.CSS_SELECTOR, f"#viewer button[{selector}]")
        return button.get_attribute("aria-pressed") == "true"

    def letters(self) -> dict[str, str]:
        return {
            edge: self.browser.find_element(By.CSS_SELECTOR, f".edge-{edge}").get_attribute("textContent") or ""
            for edge in ("left", "right", "top", "bottom")
        }
