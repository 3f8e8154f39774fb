/* Going back in a log: what would come again, and then that it does. */
import { Failure, ask, at, button, change, say } from "./api.js";
import { choices, events, labelled, make, number, table, within } from "./draw.js";

const TEMPLATE = "/sources/{source}/rewind";

/* Offered where the source is a log, with these partitions. */
export function goBack(source, partitions) {
  return button("Go back…", async () => {
    const wish = await where(source, partitions);
    if (!wish) return;
    const path = at(TEMPLATE, source), would = await change(path, { ...wish, dry_run: true });
    const count = would.partitions.reduce((sum, it) => sum + it.repeats, 0);
    const title = count ? `Have ${events(count)} of ${source} come again?` : "Nothing would come again";
    const text = count ? ["Nothing has happened yet. The source finishes what is in flight and starts anew; its sinks get these events again.", ...would.notes] : would.notes;
    if (!await ask({ title, text, more: [told(would)], yes: count ? "Go back" : "Close", danger: count > 0 }) || !count) return;
    const done = await change(path, wish);
    const refused = done.partitions.filter(it => it.refused);
    const again = done.partitions.reduce((sum, it) => sum + it.repeats, 0);
    say([`${events(again)} of ${source} come again`, ...refused.map(it => it.refused)].join("\n"));
  }, "danger");
}

/* Where to, as somebody says it; nothing if they do not. */
async function where(source, partitions) {
  const to = choices(make("select"), [["earliest", "the oldest event that is kept"], ["time", "a time"], ["sequence_number", "a sequence number"]]);
  const partition = choices(make("select"), [["", "all"], ...partitions.map(it => [it, it])]);
  const time = Object.assign(make("input"), { type: "datetime-local", step: 1, max: local(new Date()), value: local(new Date(Date.now() - 3_600_000)) });
  const sequence = Object.assign(make("input"), { type: "number", min: 0, step: 1 });
  const ofTime = labelled("time", "First event at or after", time), ofNumber = labelled("number", "Sequence number", sequence);
  const note = make("p", "To find out, reading stops for a moment: the hub has to be asked.", "quiet");
  to.onchange = () => {
    ofTime.hidden = note.hidden = to.value !== "time";
    ofNumber.hidden = to.value !== "sequence_number";
    /* Each partition has numbers of its own. */
    const pairs = partitions.map(it => [it, it]);
    choices(partition, to.value === "sequence_number" ? pairs : [["", "all"], ...pairs]);
  };
  to.onchange();
  const more = [within("div", "fields", labelled("to", "To", to), ofTime, ofNumber, labelled("partition", "Partition", partition)), note];
  if (!await ask({ title: `Go back in ${source}`, text: ["First it is found out what would come again."], more, yes: "Find out" })) return null;
  const place = { earliest: () => "earliest", time: () => ({ time: moment(time.value) }), sequence_number: () => ({ sequence_number: whole(sequence.value) }) };
  return { to: place[to.value](), ...(partition.value && { partition: partition.value }) };
}

/* As the browser's own clock has it, for a field. */
const local = time => new Date(time - time.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);

function moment(text) {
  const time = new Date(text);
  if (Number.isNaN(time.getTime())) throw new Failure("say a time to go back to");
  return time.toISOString();
}

function whole(text) {
  if (!/^\d+$/.test(text)) throw new Failure("say the number of the first event that is to come again");
  return Number(text);
}

function told(answer) {
  const rows = answer.partitions.map(it => [it.partition, number(it.from), number(it.to), number(it.repeats), number(it.gone), it.refused ?? ""]);
  return table("What would come again", ["Partition", "Settled", "Goes on with", "Come again", "Gone from the hub", "long:Left alone"], rows);
}
