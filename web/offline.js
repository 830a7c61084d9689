// Registers the service worker, and says when a newer version of the page is ready.

import { element } from "./dom.js";

export async function keepOffline() {
  // Private windows and pages by plain http have none, and need none.
  const registration = await navigator.serviceWorker?.register("./sw.js", { updateViaCache: "none" }).catch(() => undefined);
  if (!registration) return;
  const look = () => {
    if (registration.waiting && navigator.serviceWorker.controller) offer(registration.waiting);
  };
  registration.addEventListener("updatefound", () => registration.installing?.addEventListener("statechange", look));
  look();
}

function offer(waiting) {
  document.getElementById("update")?.remove();
  const take = () => {
    navigator.serviceWorker.addEventListener("controllerchange", () => location.reload(), { once: true });
    waiting.postMessage("take over");
  };
  const button = element("button", { type: "button", onclick: take }, "Reload with it");
  document.querySelector("main").before(element("p", { id: "update", class: "notice", role: "status" }, "A newer version of this page is ready. ", button));
}
