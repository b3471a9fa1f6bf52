"""Scan and structured report -> Orthanc's DICOMweb -> the real OHIF viewer in Chromium, in a network of its own.

    unshare --net python ohif_viewer.py FOLDER DIST SCAN REPORT

DIST is the folder `dist` of npm's package @ohif/app. Prints what the viewer shows, as JSON; pictures go to FOLDER.
"""

from __future__ import annotations

import json
import shutil
import sys
import threading
import urllib.error
import urllib.request
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pydicom
from selenium import webdriver
from selenium.webdriver import ActionChains
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.edge_spine.node.round_trip import Orthanc, raise_loopback
from tests.edge_spine.outputs.report.viewer import SOFTWARE_WEBGL

DICOMWEB = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
WAIT_S = 180
CONFIG = """window.config = {
  extensions: [], modes: [], showStudyList: true, investigationalUseDialog: { option: 'never' },
  maxNumberOfWebWorkers: 1, defaultDataSourceName: 'orthanc',
  dataSources: [{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb', sourceName: 'orthanc',
    configuration: {
      friendlyName: 'Orthanc', name: 'orthanc', wadoUriRoot: '/dicom-web', qidoRoot: '/dicom-web',
      wadoRoot: '/dicom-web', qidoSupportsIncludeField: false, imageRendering: 'wadors',
      thumbnailRendering: 'wadors', enableStudyLazyLoad: true, supportsFuzzyMatching: false,
    },
  }],
}"""


class Site(SimpleHTTPRequestHandler):
    """The viewer's files, and Orthanc's DICOMweb under the same address."""

    archive = ""

    def do_GET(self) -> None:
        if self.path.startswith("/dicom-web"):
            asked = urllib.request.Request(
                self.archive + self.path, headers={"Accept": self.headers["Accept"] or "*/*"}
            )
            try:
                with urllib.request.urlopen(asked, timeout=60) as answer:
                    self.reply(answer.status, answer.headers["Content-Type"], answer.read())
            except urllib.error.HTTPError as error:
                self.reply(error.code, "text/plain", error.read())
        elif self.path == "/app-config.js":
            self.reply(200, "text/javascript", CONFIG.encode())
        else:
            if not Path(self.translate_path(self.path)).is_file():
                self.path = "/index.html"  # a page of the viewer
            super().do_GET()

    def reply(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind or "application/octet-stream")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def main(folder: Path, dist: Path, scan: Path, report: Path) -> dict[str, str]:
    """Return the texts that the viewer shows of the report, and of the measurements that it takes over."""
    raise_loopback()
    orthanc = Orthanc(folder, DICOMWEB)
    Site.archive = f"http://127.0.0.1:{orthanc.http_port}"
    for file in (scan, report):
        urllib.request.urlopen(f"{Site.archive}/instances", data=file.read_bytes(), timeout=60).close()
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *words: Site(*words, directory=str(dist)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1600,1000"):
        options.add_argument(argument)
    for argument in SOFTWARE_WEBGL:
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    shown = {}

    def click(xpath: str, double: bool = False) -> None:
        WebDriverWait(browser, WAIT_S).until(lambda _: any(each.is_displayed() for each in found(xpath)))
        element = next(each for each in found(xpath) if each.is_displayed())
        (ActionChains(browser).double_click if double else ActionChains(browser).click)(element).perform()

    def found(xpath: str) -> list[Any]:
        return browser.find_elements(By.XPATH, xpath)

    def keep(name: str, text: str) -> None:
        WebDriverWait(browser, WAIT_S).until(lambda _: text in browser.find_element(By.TAG_NAME, "body").text)
        shown[name] = browser.find_element(By.TAG_NAME, "body").text
        browser.save_screenshot(str(folder / f"ohif_{name}.png"))

    try:
        study = pydicom.dcmread(report, stop_before_pixels=True).StudyInstanceUID
        browser.get(f"http://localhost:{server.server_port}/viewer?StudyInstanceUIDs={study}")
        click("//*[text()='Skip all']")
        click("//*[starts-with(text(), '3D spine, research only')]", double=True)
        keep("report", "Cobb angle")
        click("//button[contains(., 'Yes')]")
        keep("taken_over", "\N{DEGREE SIGN}")
        click("//*[@data-cy='trackedMeasurements-btn']")
        keep("listed", "edge-spine lateral curve")
        return shown
    finally:
        browser.quit()
        orthanc.process.kill()


if __name__ == "__main__":
    print(json.dumps(main(*map(Path, sys.argv[1:]))))
