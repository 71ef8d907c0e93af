// Browsers start no worker in a page that was opened as a file. There the script of the site's search runs in a hidden
// frame instead, with the part of a worker's interface that the theme uses.
"use strict";

if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    #waiting = [];
    #send = data => this.#waiting.push(data);

    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.addEventListener("load", () => this.#run(frame.contentWindow, new URL(url, location.href).href), {once: true});
      document.body.append(frame);
    }

    postMessage(data) {
      this.#send(data);
    }

    #run(inside, url) {
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", {data}));
      const script = inside.document.createElement("script");
      script.src = url;
      script.addEventListener("load", () => {
        this.#send = data => inside.dispatchEvent(new MessageEvent("message", {data}));
        this.#waiting.forEach(this.#send);
      });
      inside.document.body.append(script);
    }
  };
}
