/** The view pairs of experiments: pictures that may not be there yet. */

import { get } from "./api.js";

const pictures = new Map();

/** The URL of an experiment's view pairs, or null where it has left none. */
export async function pictureOf(id) {
  if (pictures.has(id)) return pictures.get(id);
  const { data } = await get(`/v1/experiments/${id}/artifacts`);
  const url = data.some((artifact) => artifact.name === "preview.png") ? `/v1/experiments/${id}/preview.png` : null;
  if (data.length) pictures.set(id, url);
  return url;
}

/** The first picture among several experiments'. */
export async function firstPicture(ids) {
  for (const id of ids) {
    const url = await pictureOf(id);
    if (url) return url;
  }
  return null;
}
