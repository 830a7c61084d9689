// The text and the open view follow the state. A view has `update()`, and `live: false` if nothing that is written changes it.

let text;
let open;
let drawing = false;

export function setText(view) {
  text = view;
}

export function setOpen(view) {
  open = view;
  void open.update();
}

/** Another answer, or another model. */
export function resetText() {
  text.reset();
}

export function draw() {
  text?.update();
  if (open?.live !== false) open?.update();
}

/** At most once per frame: tokens may come faster. */
export function drawSoon() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    draw();
  });
}
