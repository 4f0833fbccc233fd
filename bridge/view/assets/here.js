// Where the bridge is, as the page was loaded from it.

// here is a path's whole address. A path alone would be taken relative to an
// address that may have name and password in it, from which a page may fetch
// nothing.
export const here = (path) => new URL(path, location.origin).href;

// ask gets what is at a path, and throws with what the bridge said where it
// refuses, in words for the one who looks.
export async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(here(path), options);
  } catch (e) {
    if (e.name === "AbortError") throw e;
    throw new Error("The bridge does not answer.", { cause: e });
  }
  if (!answer.ok) throw new Refused(answer.status, (await answer.text()).trim());
  return answer;
}

// Refused is an answer other than what was asked for.
export class Refused extends Error {
  constructor(status, said) {
    super(said.length > 0 && said.length < 200 ? said : "The bridge answers " + status + ".");
    this.status = status;
  }
}
