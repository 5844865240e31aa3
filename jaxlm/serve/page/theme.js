// Sets the colours that were chosen before anything is drawn; without a choice the system's are used.
try {
  const theme = JSON.parse(localStorage.getItem("jaxlm.theme"));
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // storage is forbidden, or not ours: the system's colours
}
