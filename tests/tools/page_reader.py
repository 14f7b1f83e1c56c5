"""Opens pages in Chromium as a reader does, and prints what it found as JSON. Run by a Python that has selenium.

Arguments: the browser, its driver, a folder with `page.html` and `large.html`; screenshots go there too.
"""

import json
import sys
import time
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--window-size=1400,1000",
)


def opened(program: str, driver: str) -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))


def column(chrome: webdriver.Chrome, index: int) -> list[str]:
    return [
        row.find_elements(By.XPATH, "*")[index].text
        for row in chrome.find_elements(By.CSS_SELECTOR, "#by-step tbody tr")
    ]


def sorted_state(chrome: webdriver.Chrome) -> list[str]:
    return [head.get_attribute("aria-sort") for head in chrome.find_elements(By.CSS_SELECTOR, "#by-step thead th")]


def by_keyboard(chrome: webdriver.Chrome, presses: int, key: str) -> str:
    """Press Tab so many times, then a key; the name of what had the focus."""
    for _ in range(presses):
        ActionChains(chrome).send_keys(Keys.TAB).perform()
    focused = chrome.switch_to.active_element
    name = focused.accessible_name
    focused.send_keys(key)
    return name


def colours(chrome: webdriver.Chrome, scheme: str) -> list[str]:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    script = "const style = getComputedStyle(document.body); return [style.backgroundColor, style.color]"
    return chrome.execute_script(script)


def read(chrome: webdriver.Chrome, folder: Path) -> dict[str, object]:
    chrome.get((folder / "page.html").as_uri())
    found: dict[str, object] = {"text": chrome.find_element(By.TAG_NAME, "body").text, "title": chrome.title}
    found["scripts"] = len(chrome.find_elements(By.TAG_NAME, "script"))
    found["injected"] = chrome.execute_script("return [window.injected ?? null, document.images.length]")
    found["resources"] = chrome.execute_script("return performance.getEntriesByType('resource').map(each => each.name)")
    found["bars"] = {kind: len(chrome.find_elements(By.CSS_SELECTOR, f"rect.{kind}")) for kind in ("attempt", "wait")}
    found["roles"] = [table.aria_role for table in chrome.find_elements(By.TAG_NAME, "table")]
    found["steps"] = column(chrome, 0)
    found["focused"] = by_keyboard(chrome, 6, Keys.ENTER)
    found["by_cost"], found["sorted"] = column(chrome, 0), sorted_state(chrome)
    chrome.switch_to.active_element.send_keys(Keys.SPACE)
    found["by_cost_again"] = column(chrome, 0)
    toggle = chrome.find_element(By.CSS_SELECTOR, ".toggle")
    rows = chrome.find_elements(By.CSS_SELECTOR, "table.trace tbody tr")
    toggle.send_keys(Keys.ENTER)
    found["folded"] = [row.is_displayed() for row in rows]
    found["toggle"] = [toggle.accessible_name, toggle.get_attribute("aria-expanded")]
    toggle.send_keys(Keys.ENTER)
    for scheme in ("light", "dark"):
        found[scheme] = colours(chrome, scheme)
        chrome.save_screenshot(str(folder / f"{scheme}.png"))
    found["log"] = [entry["message"] for entry in chrome.get_log("browser")]
    return found


def open_large(chrome: webdriver.Chrome, folder: Path) -> dict[str, object]:
    began = time.perf_counter()
    chrome.get((folder / "large.html").as_uri())
    opened_s = time.perf_counter() - began
    return {"opened_s": opened_s, "rows": len(chrome.find_elements(By.CSS_SELECTOR, "table.trace tbody tr"))}


def main() -> None:
    program, driver, folder = sys.argv[1:]
    chrome = opened(program, driver)
    try:
        print(json.dumps({"page": read(chrome, Path(folder)), "large": open_large(chrome, Path(folder))}))
    finally:
        chrome.quit()


if __name__ == "__main__":
    main()
