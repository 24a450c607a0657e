/** Draws one frame of `potluck top` as lines of text that fit a screen. */
import type { MovedBytes } from '../builds/records.ts';
import type { TopFrame } from '../builds/top.ts';
import type { PeerLine } from '../mesh/status.ts';
import { namesOf } from './api.ts';
import { actionName, shortAction } from './builds.ts';
import { formatBytes, formatDuration, formatTable, printable } from './format.ts';

export interface Screen {
  readonly columns: number;
  /** `undefined`: as many lines as there are. */
  readonly rows: number | undefined;
}

const links = ['subnet', 'site', 'other'] as const;
const linkNames = { subnet: 'same subnet', site: 'same site', other: 'elsewhere' };
const peersShownMax = 12;
const buildsShownMax = 3;

/** `before`: the frame drawn last, for rates. Lines are never longer than the screen is wide, nor more than it is high. */
export function topLines(frame: TopFrame, before: TopFrame | undefined, { columns, rows }: Screen): string[] {
  const lines = [...headLines(frame, before), ...peerLines(frame), ...buildLines(frame), ...actionLines(frame)];
  const shown = rows === undefined ? lines : lines.slice(0, rows);
  return shown.map((line) => (line.length > columns ? `${line.slice(0, Math.max(0, columns - 1))}…` : line));
}

function headLines(frame: TopFrame, before: TopFrame | undefined): string[] {
  const { counts } = frame;
  const { answered } = counts;
  const alive = frame.peers.filter(({ status }) => status === 'alive');
  const lent = alive.reduce((sum, { guestSlots }) => sum + guestSlots, 0);
  return [
    `Potluck on ${printable(frame.name)}: ${frame.state}, ${new Date(frame.time).toLocaleTimeString('sv-SE')}`,
    ...formatTable([
      [
        'Slots',
        `${frame.executing - frame.executingElsewhere} of ${frame.slots} busy, ${frame.executingElsewhere} actions on peers, ${frame.queued} queued; ${frame.guests.length} guests here`,
      ],
      ['Mesh', `${alive.length} other nodes alive, ${lent} slots lent`],
      [
        'Results',
        `${answered['hit-local']} from the cache, ${answered['hit-peer']} from peers; ran: ${answered.here} here, ${answered.peer} on peers; ${counts.failed} failed`,
      ],
      ['Placed', `${counts.stayed} kept here, ${counts.offered} offered, ${counts.claimsLost} begun again`],
      [
        'Guests',
        `${counts.guests.succeeded + counts.guests.failed} ran here, ${counts.guests.failed} failed, frozen ${counts.guests.frozen} times`,
      ],
      ['Transfers', links.map((link) => `${linkNames[link]} ${rateText(frame, before, link)}`).join('; ')],
    ]),
  ];
}

/** Of two frames the rate between them; of one the sums since the node started. */
function rateText(frame: TopFrame, before: TopFrame | undefined, link: keyof MovedBytes): string {
  const now = frame.moved[link];
  const seconds = before === undefined ? 0 : (Date.parse(frame.time) - Date.parse(before.time)) / 1000;
  if (!before || seconds <= 0) return `${formatBytes(now.receivedBytes)} in, ${formatBytes(now.servedBytes)} out`;
  const rate = (bytes: number, bytesBefore: number): string =>
    `${formatBytes(Math.max(0, bytes - bytesBefore) / seconds)}/s`;
  const { receivedBytes, servedBytes } = before.moved[link];
  return `${rate(now.receivedBytes, receivedBytes)} in, ${rate(now.servedBytes, servedBytes)} out`;
}

function peerLines({ peers, actions }: TopFrame): string[] {
  if (peers.length === 0) return [];
  const rows = peers
    .slice(0, peersShownMax)
    .map((peer) => [
      `  ${printable(peer.name) || peer.peerId.slice(-8)}`,
      peer.status === 'alive' && !peer.connected ? 'alive, not connected' : peer.status,
      printable(peer.site) || '-',
      peer.roundTripMs === null ? '-' : `${peer.roundTripMs.toFixed(1)} ms`,
      String(peer.guestSlots),
      String(actions.filter(({ node }) => node === peer.peerId).length),
      noteOf(peer),
    ]);
  return ['', ...formatTable([['  NODE', 'STATUS', 'SITE', 'ROUND TRIP', 'LENDS', 'OURS THERE', ''], ...rows])];
}

function noteOf({ drained }: PeerLine): string {
  return drained === null ? '' : `drained: ${printable(drained)}`;
}

function buildLines({ builds }: TopFrame): string[] {
  if (builds.length === 0) return [];
  const rows = builds
    .slice(0, buildsShownMax)
    .map(({ id, tool, sources, failed, savedMs }) => [
      `  ${printable(id)}`,
      printable(tool) || '-',
      String(sources['hit-local'] + sources['hit-peer']),
      String(sources.here + sources.joined),
      String(sources.peer),
      String(failed),
      formatDuration(savedMs),
    ]);
  return ['', ...formatTable([['  BUILD', 'CLIENT', 'HITS', 'RAN HERE', 'ON PEERS', 'FAILED', 'SAVED'], ...rows])];
}

function actionLines(frame: TopFrame): string[] {
  const nameOf = namesOf(frame);
  const rows = [
    ...frame.actions.map((one) => [
      `  ${formatDuration(one.ageMs)}`,
      one.stage,
      one.stage === 'queued' && one.node === null ? '-' : nameOf(one.node),
      shortAction(one.action),
      actionName(one),
    ]),
    ...frame.guests.map(({ action, submitter, ageMs, frozen }) => [
      `  ${formatDuration(ageMs)}`,
      frozen ? 'frozen' : 'executing',
      'here',
      shortAction(action),
      `for ${nameOf(submitter)}`,
    ]),
  ];
  if (rows.length === 0) return ['', 'Nothing runs.'];
  return ['', ...formatTable([['  AGE', 'STAGE', 'WHERE', 'ACTION', ''], ...rows])];
}
