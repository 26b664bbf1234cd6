// Light, dark, or as the system says. The choice is kept in this browser.

import { byId } from './dom.mjs'

const NAME = 'enmesh-status-theme'

/** A browser may forbid storage. */
function stored() {
  try {
    return localStorage.getItem(NAME) ?? 'auto'
  } catch {
    return 'auto'
  }
}

/** @param {string} theme */
function store(theme) {
  try {
    localStorage.setItem(NAME, theme)
  } catch {
    // It holds until the page is closed.
  }
}

/** @param {string} theme */
function show(theme) {
  if (theme === 'auto') delete document.documentElement.dataset.theme
  else document.documentElement.dataset.theme = theme
}

export function startTheme() {
  const select = /** @type {HTMLSelectElement} */ (byId('theme'))
  select.value = stored()
  show(select.value)
  select.addEventListener('change', () => {
    store(select.value)
    show(select.value)
  })
}
