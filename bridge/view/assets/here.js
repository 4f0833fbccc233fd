// The address of the bridge, from the address of the page.

// here returns the whole address of a path. A path alone is relative to the page's
// address, which may contain a name and password. A page may not fetch from such an
// address.
export const here = (path) => new URL(path, location.origin).href;

// ask fetches a path. If the bridge refuses, it throws the bridge's message, in words
// for the user.
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

// Refused is the error of an answer with another status.
export class Refused extends Error {
  constructor(status, said) {
    super(said.length > 0 && said.length < 200 ? said : "The bridge answers " + status + ".");
    this.status = status;
  }
}
