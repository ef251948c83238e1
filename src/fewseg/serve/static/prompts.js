// Asks the server to complete what is painted, while it is painted and when a stroke ends.

const LONGEST_WAIT = 8000; // ms between two tries

/** Runs an action again until the server answers; onLost() is called at each failure to reach it. */
export async function lasting(act, onLost) {
  for (let wait = 500; ; wait = Math.min(LONGEST_WAIT, 2 * wait)) {
    try { return await act(); } catch (error) {
      if (error.status !== 0) throw error;
      onLost();
      await new Promise((go) => { setTimeout(go, wait); addEventListener("online", go, { once: true }); });
    }
  }
}

/** One request at a time, the newest last: what comes between is left out. */
export class Completer {
  /** ask(map) returns the labels; onAnswer(map, labels, turn) gets those of the map at a turn; onError(error). */
  constructor({ ask, onAnswer, onError }) {
    Object.assign(this, { ask, onAnswer, onError });
    this.next = null;
    this.idle = Promise.resolve();
    this.running = false;
  }

  request(map) {
    this.next = map;
    if (!this.running) this.idle = this.run();
  }

  async run() {
    this.running = true;
    while (this.next) {
      const map = this.next;
      const { turn } = map;
      this.next = null;
      try { this.onAnswer(map, await this.ask(map), turn); } catch (error) { this.onError(error); }
    }
    this.running = false;
  }
}
