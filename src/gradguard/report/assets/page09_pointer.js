// Mouse, finger and wheel on charts over steps: hover shows, click pins, drag and Ctrl + wheel zoom, double click
// shows all.

function listen(panel) {
  const { box } = panel;
  let from = null; // where a button went down

  function picked(event) {
    const area = panel.canvas.getBoundingClientRect();
    const { left, right } = panel.margins();
    const inside = (x) => Math.min(area.width - right, Math.max(left, x - area.left));
    return [inside(from.x), inside(event.clientX)].sort((a, b) => a - b);
  }

  function stepAtPixel(x) {
    const { left, right } = panel.margins();
    const [first, last] = stepsShown();
    return first + ((x - left) / (panel.canvas.clientWidth - left - right)) * (last - first);
  }

  box.addEventListener("pointermove", (event) => {
    if (from && from.place && !from.touch && Math.abs(event.clientX - from.x) > 6) {
      const [left, right] = picked(event);
      panel.pick.hidden = false;
      panel.pick.style.cssText = `left:${left}px;width:${right - left}px`;
      hideTip();
      return;
    }
    const place = panel.under(event);
    if (!place) return hideTip();
    if (!state.pinned) change({ step: seen(place[0]) });
    const told = panel.told(place, event);
    if (told) showTip(event, ...told);
  });

  box.addEventListener("pointerleave", () => {
    hideTip();
    if (!from) panel.pick.hidden = true;
  });

  box.addEventListener("pointerdown", (event) => {
    const place = panel.under(event);
    if (event.button !== 0 || !(place || panel.labelled(event))) return;
    from = { x: event.clientX, y: event.clientY, touch: event.pointerType === "touch", place };
    if (place && !from.touch) box.setPointerCapture(event.pointerId);
  });

  box.addEventListener("pointerup", (event) => {
    if (!from) return;
    const moved = Math.hypot(event.clientX - from.x, event.clientY - from.y) > 6;
    if (!panel.pick.hidden) {
      const [left, right] = picked(event).map(stepAtPixel);
      zoomTo(left, right);
    } else if (!moved) click(event);
    panel.pick.hidden = true;
    from = null;
  });

  box.addEventListener("pointercancel", () => {
    from = null;
    panel.pick.hidden = true;
    hideTip();
  });

  function click(event) {
    const place = panel.under(event);
    if (panel.clicked(place, event) || !place) return;
    const near = state.step === seen(place[0]);
    if (state.pinned && near) change({ pinned: false });
    else change({ step: seen(place[0]), pinned: true });
  }

  box.addEventListener("dblclick", () => change({ zoom: null, pinned: false }));

  box.addEventListener(
    "wheel",
    (event) => {
      const place = panel.under(event);
      if (!place || !(event.ctrlKey || event.metaKey || event.shiftKey)) return; // the wheel alone scrolls the page
      event.preventDefault();
      zoomBy((event.deltaY || event.deltaX) > 0 ? 1.25 : 0.8, place[0]);
    },
    { passive: false },
  );
}
