// Times are local; spans are told as people say them.

const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const whole = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });

import { h } from "./ui.js";

export function moment(text) {
  if (!text) return null;
  const at = new Date(text);
  const isToday = at.toDateString() === new Date().toDateString();
  const shown = isToday ? clock.format(at) : `${day.format(at)}, ${clock.format(at)}`;
  return h("time", { datetime: text, title: whole.format(at) }, shown);
}

export function span(seconds) {
  const left = Math.max(0, Math.round(seconds));
  if (left < 60) return `${left} s`;
  const minutes = Math.floor(left / 60);
  if (minutes < 10) return `${minutes} min ${left % 60} s`;
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} days ${hours % 24} h`;
}

export const secondsUntil = (text) => (new Date(text) - Date.now()) / 1000;
export const hours = (number) => `${Number(number.toFixed(2))} h`;
