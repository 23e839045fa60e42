"""Looks at the pages of a built site: do they fit a phone, and a dark screen?

  python docs/check_pages.py build/site

First what needs no browser: links inside the site lead to pages and places that
are there, and no page fetches anything from elsewhere. Then, where there is a
Chromium (on PATH, or named by CHROMIUM), every page is opened without a window
at 390 and 1280 pixels, light and dark. Faults are a page or a part of it that
is wider than the screen and does not scroll, text of little contrast, pictures
without a light plate, and pages of results higher than 3,000 pixels.
`check_pages.html` finds them.
"""

import argparse
import functools
import html.parser
import http.server
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.parse
from collections.abc import Iterator

WIDTHS = (390, 1280)
RESULTS_HEIGHT = 3000
DRIVER = pathlib.Path(__file__).with_suffix(".html")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


class _Names(html.parser.HTMLParser):
  """What a page may be entered at, what it links to, and what it fetches."""

  def __init__(self, text: str):
    super().__init__()
    self.places: set[str] = set()
    self.links: list[str] = []
    self.fetched: list[str] = []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    given = {name: value or "" for name, value in attrs}
    self.places |= {given[name] for name in ("id", "name") if name in given}
    if tag == "a" and "href" in given:
      self.links.append(given["href"])
    if "src" in given:
      self.fetched.append(given["src"])
    if tag == "link" and given.get("rel") in ("stylesheet", "icon"):
      self.fetched.append(given["href"])


def static_faults(site: pathlib.Path) -> Iterator[str]:
  """Links that lead nowhere, and what would be fetched from elsewhere."""
  site = site.resolve()
  pages = {page: _Names(page.read_text()) for page in site.rglob("*.html")}
  for page, names in pages.items():
    if page == site / "404.html":
      continue  # is shown at any address, so its links begin at the root
    here = page.relative_to(site)
    for address in names.fetched:
      if urllib.parse.urlsplit(address).netloc:
        yield f"{here}: fetches {address}"
    for address in [*names.links, *names.fetched]:
      parts = urllib.parse.urlsplit(address)
      if parts.scheme or parts.netloc:
        continue
      target = page
      if parts.path:
        target = (page.parent / urllib.parse.unquote(parts.path)).resolve()
      if target.is_dir():
        target = target / "index.html"
      if not target.is_file() or not target.is_relative_to(site):
        yield f"{here}: {address} leads nowhere"
      elif parts.fragment and target in pages:
        place = urllib.parse.unquote(parts.fragment)
        if place not in pages[target].places:
          yield f"{here}: {address} is no place on its page"


def browser() -> str | None:
  """The Chromium to drive: that of CHROMIUM, or one on PATH."""
  named = os.environ.get("CHROMIUM")
  found = (shutil.which(name) for name in ([named] if named else BROWSERS))
  return next(filter(None, found), None)


class _Handler(http.server.SimpleHTTPRequestHandler):
  """Serves the site and the driver, and takes what the driver found."""

  def do_GET(self):
    if self.path == "/pages.json":
      self._answer(json.dumps(self.server.asked).encode(), "application/json")
    elif self.path == f"/{DRIVER.name}":
      self._answer(DRIVER.read_bytes(), "text/html")
    else:
      super().do_GET()

  def do_POST(self):
    length = int(self.headers["Content-Length"])
    self.server.found = json.loads(self.rfile.read(length))
    self._answer(b"", "text/plain")
    self.server.done.set()

  def _answer(self, body, kind):
    self.send_response(200)
    self.send_header("Content-Type", kind)
    self.send_header("Content-Length", str(len(body)))
    self.end_headers()
    self.wfile.write(body)

  def log_message(self, *args):
    pass


def look(site: pathlib.Path, chromium: str, seconds: float = 600) -> dict:
  """Has a browser open every page.

  Args:
    site: The folder of the site.
    chromium: The browser's command.
    seconds: How long all pages may take.

  Returns:
    The driver's ``faults``, sentences, and ``heights`` of pages in pixels.

  Raises:
    TimeoutError: If the driver does not answer.
  """
  pages = [
    {
      "path": "/" + str(page.parent.relative_to(site)).lstrip(".") + "/",
      "height": RESULTS_HEIGHT
      if page.parent.parent.name == "results"
      else None,
    }
    for page in sorted(site.rglob("index.html"))
  ]
  for page in pages:
    page["path"] = page["path"].replace("//", "/")
  handler = functools.partial(_Handler, directory=str(site))
  with (
    http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
    tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
  ):
    server.asked = {"pages": pages, "widths": WIDTHS}
    server.done = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    command = [
      *(chromium, "--headless", "--disable-gpu", "--hide-scrollbars"),
      *("--no-first-run", "--disable-background-networking"),
      f"--user-data-dir={profile}",
      # Root, as in a container, has no sandbox; the pages are our own.
      *(["--no-sandbox"] if os.geteuid() == 0 else []),
      f"http://127.0.0.1:{server.server_port}/{DRIVER.name}",
    ]
    running = subprocess.Popen(
      command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
      if not server.done.wait(seconds):
        raise TimeoutError(f"{chromium} did not look at all pages: {command}")
    finally:
      running.terminate()
      running.wait()
      server.shutdown()
    return server.found


def main() -> int:
  """Prints the faults of a site; says by its status whether there are any."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("site", type=pathlib.Path)
  parser.add_argument("--heights", action="store_true", help="print them, too")
  options = parser.parse_args()
  faults = list(static_faults(options.site))
  chromium = browser()
  if chromium is None:
    print("No Chromium (on PATH, or by CHROMIUM=): links were checked alone.")
  else:
    found = look(options.site, chromium)
    faults += found["faults"]
    if options.heights:
      for page, height in found["heights"].items():
        print(f"{height:6} {page}")
    print(
      f"Looked at {len(found['heights'])} pages and widths, light and dark."
    )
  for fault in faults:
    print(fault)
  return bool(faults)


if __name__ == "__main__":
  sys.exit(main())
