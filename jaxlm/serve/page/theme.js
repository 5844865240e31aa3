// Sets the colours that were chosen before anything is drawn; without a choice the system's are used.
try {
  const theme = localStorage.getItem("jaxlm.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // storage is forbidden: the system's colours
}
