/**
 * What goes wrong while others run one's actions: the build succeeds, each action has one accepted result, and the time
 * until what was hit is answered is printed.
 */
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type ActionSpec, shell } from '../support/actions.ts';
import { allMeet, type Machine } from '../support/machine.ts';
import { until } from '../support/until.ts';
import { startBuild } from '../support/watched-build.ts';
import { expectAllRan, lent, type LendingOffice, openLendingOffice, tellingSleepers } from './lending-office.ts';

const caseTimeoutMs = 180_000;
/** Claims expire after ten seconds. */
const leaseMs = 10_000;

const smallDiskBytes = 256 * 1024 * 1024;
/** Executors that may die of one action. */
const deathsMax = 3;

interface ShardLine {
  readonly shard: number;
  readonly leader: string | null;
  readonly voters: readonly string[];
}

describe('a build that others run', () => {
  let office: LendingOffice;
  let builds = 0;
  beforeAll(async () => {
    office = await openLendingOffice(['ben', 'cora', 'dora'], {
      diskBytesOf: (name) => (name === 'anna' ? undefined : smallDiskBytes),
    });
    // The first machine coordinated everything when it was alone; after a while the others take their part.
    await until(async () => (await shards()).every(({ voters }) => voters.length === 3), caseTimeoutMs);
  }, caseTimeoutMs);
  afterAll(() => office?.[Symbol.asyncDispose]());

  async function shards(): Promise<readonly ShardLine[]> {
    const { mesh } = (await office.anna.node().status()) as { mesh: { coordination: { list: readonly ShardLine[] } } };
    return mesh.coordination.list;
  }

  /** Which of the lenders is named most often. */
  function mostNamed(ids: readonly (string | null)[]): Machine[] {
    const count = (one: Machine): number => ids.filter((id) => id === office.idOf(one)).length;
    return office.lenders.toSorted((one, other) => count(other) - count(one));
  }

  interface Blow {
    /** It falls when one of them runs something; that one is struck. */
    readonly among: readonly Machine[];
    readonly strike: (victim: Machine) => unknown;
    readonly heal: (victim: Machine) => unknown;
    readonly specs?: readonly ActionSpec[];
    /** Who must agree about results afterwards; default: everybody. */
    readonly agreed?: readonly Machine[];
  }

  /** Prints how long after the blow the last action was answered that ran on the victim. */
  async function strikeDuringBuild(what: string, blow: Blow): Promise<void> {
    const { among, strike, heal, specs = sleepers(), agreed = office.mesh.machines } = blow;
    const build = await startBuild(office.client, specs);
    const busy = () => among.find((one) => build.runningAt(office.idOf(one)).length > 0);
    await until(() => busy() !== undefined);
    const victim = busy() as Machine;
    const hit = build.runningAt(office.idOf(victim));
    const struckMs = performance.now();
    await strike(victim);
    try {
      expectAllRan(await build.done, specs);
    } finally {
      await heal(victim);
    }
    await allMeet(office.mesh.machines);
    await office.expectOneResultEach(specs, agreed);
    const recoveryMs = Math.max(...hit.map((name) => (build.answeredAtMs(name) ?? Number.NaN) - struckMs));
    console.info(
      `${what}: ${hit.length} actions ran there, and were answered ${(recoveryMs / 1000).toFixed(1)} s later`,
    );
  }

  const sleepers = (count = 24): ActionSpec[] => tellingSleepers(`fault-${(builds += 1)}`, count, 1_000);
  const kill = (victim: Machine) => victim.node().kill();
  const revive = (victim: Machine) => victim.up();

  test('an executor is killed', { timeout: caseTimeoutMs }, async () => {
    await strikeDuringBuild('an executor killed', { among: office.lenders, strike: kill, heal: revive });
  });

  test('the leader of most shards is killed', { timeout: caseTimeoutMs }, async () => {
    const leaders = (await shards()).map(({ leader }) => leader);
    const among = mostNamed(leaders).slice(0, 1);
    expect(leaders).toContain(among.map(office.idOf)[0]);
    await strikeDuringBuild('a leader killed', { among, strike: kill, heal: revive });
  });

  test('two of three coordinators are killed', { timeout: caseTimeoutMs }, async () => {
    const among = mostNamed((await shards()).flatMap(({ voters }) => voters)).slice(0, 2);
    await strikeDuringBuild('two coordinators killed', {
      among,
      strike: () => Promise.all(among.map(kill)),
      heal: () => Promise.all(among.map(revive)),
    });
  });

  test('an executor is frozen past its lease, and woken', { timeout: caseTimeoutMs }, async () => {
    let frozenMs = 0;
    await strikeDuringBuild('an executor frozen', {
      among: office.lenders,
      strike(victim) {
        victim.node().child.kill('SIGSTOP');
        frozenMs = performance.now();
      },
      async heal(victim) {
        await until(() => performance.now() - frozenMs > 1.5 * leaseMs);
        victim.node().child.kill('SIGCONT');
      },
    });
  });

  test('the builder is cut off', { timeout: caseTimeoutMs }, async () => {
    const { lab } = office.mesh;
    if (!lab) return console.warn('not checked: cutting a machine off needs network namespaces');
    await strikeDuringBuild('the builder cut off', {
      among: office.lenders,
      strike: () => lab.plug('anna', false),
      heal: () => lab.plug('anna', true),
      specs: sleepers(16),
      // What anna ran alone is hers: the others go on with what was accepted behind her back.
      agreed: office.lenders,
    });
  });

  test('the disk of an executor is full', { timeout: caseTimeoutMs }, async () => {
    if (!office.mesh.lab) return console.warn('not checked: a full disk needs a disk of its own, which root can mount');
    const fillerOf = ({ dataDir }: Machine) => join(dataDir, 'filler');
    await strikeDuringBuild('a disk full', {
      among: office.lenders,
      async strike(victim) {
        const filled = writeFile(fillerOf(victim), Buffer.alloc(smallDiskBytes));
        await expect(filled).rejects.toMatchObject({ code: 'ENOSPC' });
      },
      heal: (victim) => rm(fillerOf(victim)),
    });
  });

  test('an action that kills whoever runs it ends with a clear error', { timeout: caseTimeoutMs }, async () => {
    const poison: ActionSpec = { name: 'poison', argv: shell('sleep 30'), platform: lent };
    const build = await startBuild(office.client, [poison]);
    let isOver = false;
    void build.done.then(() => (isOver = true));
    let deaths = 0;
    for (let seen = 0; !isOver; ) {
      await until(() => isOver || build.sightings().length > seen, caseTimeoutMs);
      const victim = office.lenders.find((one) => build.runningAt(office.idOf(one)).length > 0);
      seen = build.sightings().length;
      if (!victim) continue;
      deaths += 1;
      await victim.node().kill();
      await until(async () => (await office.anna.sees()) < office.lenders.length);
      await victim.up();
      await allMeet(office.mesh.machines);
    }
    const [run] = await build.done;
    console.info(`a poison action: ${deaths} deaths, then ${run?.code}: ${run?.message}`);
    expect(run).toMatchObject({ exitCode: undefined });
    expect(run?.code).toBe('FAILED_PRECONDITION');
    expect(run?.message).toContain('every node that ran the action went away');
    // The count outlives its leader. Where the leader ran the action itself, the next one may give it away before the
    // death is news.
    expect(deaths).toBeGreaterThanOrEqual(deathsMax);
    expect(deaths).toBeLessThanOrEqual(deathsMax + 1);
  });
});
