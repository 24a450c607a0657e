import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { systemFiles } from '../../../../sandbox/idleness/files.ts';
import { inputSensor } from '../../../../sandbox/idleness/input.ts';
import { devicesLookMs, inputProgramMs, networkLookMs } from '../../../../sandbox/idleness/limits.ts';
import {
  availableBytes,
  drawsFromBattery,
  isThrottled,
  openMacSensors,
  sinceInputMs,
} from '../../../../sandbox/idleness/macos.ts';
import { freeMemoryBytes, isMemoryPressed } from '../../../../sandbox/idleness/memory.ts';
import { isMetered } from '../../../../sandbox/idleness/network.ts';
import { isHot, onBattery } from '../../../../sandbox/idleness/power.ts';
import { processorsSensor } from '../../../../sandbox/idleness/processors.ts';
import { type Ask, askProgram, remembered } from '../../../../sandbox/idleness/program.ts';
import { openLinuxSensors, openMachineSensors } from '../../../../sandbox/idleness/sensors.ts';
import { until } from '../../../support/until.ts';
import { type FakeMachine, makeMachine } from './machine.ts';

let machine: FakeMachine;
beforeEach(() => {
  machine = makeMachine();
});
afterEach(() => machine[Symbol.dispose]());

const silent: Ask = async () => undefined;

describe('processors', () => {
  const pid = 10;
  /** Ticks: `others` and `nice` since boot, of which the rest of 10,000 was idle; what the node and its child used. */
  function at(user: number, nice: number, own: number, child: number): void {
    machine.write('proc/stat', `cpu  ${user} ${nice} 0 ${10_000 - user - nice} 0 0 0 0 0 0\ncpu0 1 2 3\n`);
    const stat = (id: number, used: number) => `${id} (a) b) S 1 1 1 0 -1 0 0 0 0 0 ${used} 0 0 0 20 0 1\n`;
    machine.write('proc/10/stat', stat(10, own));
    machine.write('proc/10/task/10/children', '11 ');
    machine.write('proc/11/stat', stat(11, child));
    machine.write('proc/11/task/11/children', '');
  }
  function measure(first: Parameters<typeof at>, second: Parameters<typeof at>): number | undefined {
    let nowMs = 0;
    const sensor = processorsSensor(machine.files, pid, () => nowMs);
    at(...first);
    expect(sensor.read()).toBeUndefined();
    nowMs += 1_000;
    at(...second);
    // In this second 1,000 ticks went by.
    const stat = machine.files.text('/proc/stat') ?? '';
    machine.write(
      'proc/stat',
      stat.replace(/(cpu {2}\d+ \d+ 0 )(\d+)/, (_, head, idle) => `${head}${+idle + 1_000}`),
    );
    return sensor.read();
  }

  test('what others use counts', () => expect(measure([0, 0, 0, 0], [400, 0, 0, 0])).toBe(400));
  test('this node and what it started do not', () => expect(measure([0, 0, 0, 0], [400, 0, 100, 250])).toBe(50));
  test('guests do not, ours or those of another node here', () => {
    expect(measure([0, 0, 0, 0], [50, 900, 0, 900])).toBe(50);
    expect(measure([0, 0, 0, 0], [50, 900, 0, 0])).toBe(50);
  });
  test('a guest of ours hides nothing that the owner does', () =>
    expect(measure([0, 0, 0, 0], [500, 500, 0, 500])).toBe(500));
  test('a quiet machine is not searched for what is ours', () =>
    expect(measure([0, 0, 0, 0], [40, 0, 0, 40])).toBe(40));
  test('a child that vanished with its time makes nobody busy', () =>
    expect(measure([300, 0, 0, 300], [300, 0, 0, 0])).toBe(0));
  test('without the file nothing is known', () => {
    expect(processorsSensor(machine.files, pid, () => 0).read()).toBeUndefined();
  });
});

describe('input', () => {
  const startMs = 1_700_000_000_000;
  let nowMs: number;
  beforeEach(() => {
    nowMs = startMs;
  });
  const open = (ask: Ask = silent) => inputSensor({ files: machine.files, ask, wallMs: () => nowMs });
  const usb = 'sys/bus/usb/devices';
  function plug(device: string, protocol: string): void {
    machine.write(`${usb}/${device}:1.0/bInterfaceClass`, '03\n');
    machine.write(`${usb}/${device}:1.0/bInterfaceProtocol`, protocol);
    machine.write(`${usb}/${device}/urbnum`, '100\n');
  }

  test('a server has none; whoever types in a terminal counts', () => {
    expect(open().read()).toBe(Number.POSITIVE_INFINITY);
    machine.terminal('dev/pts/0', startMs - 90_000);
    machine.terminal('dev/pts/3', startMs - 4_000);
    machine.terminal('dev/tty1', startMs - 80_000);
    machine.terminal('dev/tty2', startMs);
    machine.write('sys/class/tty/tty0/active', 'tty1\n');
    expect(open().read()).toBe(4_000);
    machine.write('sys/class/tty/tty0/active', 'tty2\n');
    expect(open().read()).toBe(0);
  });

  test('a USB keyboard tells by its transfers, a power supply with a cable does not', () => {
    plug('1-2', '01\n');
    plug('1-3', '00\n');
    const sensor = open();
    expect(sensor.read()).toBe(0);
    nowMs += 60_000;
    machine.write(`${usb}/1-3/urbnum`, '200\n');
    expect(sensor.read()).toBe(60_000);
    machine.write(`${usb}/1-2/urbnum`, '104\n');
    nowMs += 1_000;
    expect(sensor.read()).toBe(0);
    nowMs += 1_000;
    expect(sensor.read()).toBe(1_000);
    // Plugged in later; that alone is no input, its first key is.
    plug('2-1', '02\n');
    nowMs += devicesLookMs;
    expect(sensor.read()).toBe(1_000 + devicesLookMs);
    machine.write(`${usb}/2-1/urbnum`, '101\n');
    expect(sensor.read()).toBe(0);
  });

  test('a keyboard and a touch pad inside a laptop tell by their interrupts', () => {
    const irq = 'sys/kernel/irq';
    machine.write(`${irq}/1/actions`, 'i8042\n');
    machine.write(`${irq}/1/per_cpu_count`, '5,0\n');
    machine.write(`${irq}/9/actions`, 'acpi,ELAN1200:00\n');
    machine.write(`${irq}/9/per_cpu_count`, '7,0\n');
    machine.write(`${irq}/16/actions`, 'nvme0\n');
    machine.write(`${irq}/16/per_cpu_count`, '1,1\n');
    machine.link('sys/bus/i2c/devices/i2c-ELAN1200:00/driver', '../drivers/i2c_hid_acpi');
    const sensor = open();
    sensor.read();
    for (const [number, moves] of [
      [16, false],
      [1, true],
      [9, true],
    ] as const) {
      nowMs += 10_000;
      machine.write(`${irq}/${number}/per_cpu_count`, '9,9\n');
      expect(sensor.read() === 0, String(number)).toBe(moves);
    }
  });

  test('a desktop that shows no devices is asked for its idle hint, and is unknown without one', async () => {
    machine.write('run/systemd/sessions/2', 'TYPE=wayland\n');
    expect(open().read()).toBeUndefined();
    let hint = 'Type=wayland\nIdleHint=no\nIdleSinceHint=0\n\nType=tty\nIdleHint=yes\nIdleSinceHint=7\n';
    const asked: string[] = [];
    const sensor = open(async (program, args) => {
      asked.push(`${program} ${args[0]}`);
      return args[0] === 'list-sessions' ? ' 2 1000 anna seat0\n' : hint;
    });
    sensor.read();
    await until(() => sensor.read() === 0);
    expect(asked).toEqual(['loginctl list-sessions', 'loginctl show-session']);
    hint = `Type=wayland\nIdleHint=yes\nIdleSinceHint=${(startMs - 50_000) * 1_000}\n`;
    nowMs += inputProgramMs;
    await until(() => sensor.read() === 50_000 + inputProgramMs);
  });
});

describe('battery and heat', () => {
  const supply = (name: string, fields: Record<string, string>) => {
    for (const [field, text] of Object.entries(fields)) machine.write(`sys/class/power_supply/${name}/${field}`, text);
  };
  test('battery', () => {
    expect(onBattery(machine.files)).toBeUndefined();
    supply('AC', { type: 'Mains', online: '1' });
    supply('mouse', { type: 'Battery', scope: 'Device', status: 'Discharging' });
    expect(onBattery(machine.files)).toBe(false);
    supply('BAT0', { type: 'Battery', status: 'Full' });
    expect(onBattery(machine.files)).toBe(false);
    supply('AC', { online: '0' });
    expect(onBattery(machine.files)).toBe(true);
    supply('AC', { online: '1' });
    supply('BAT0', { status: 'Discharging' });
    expect(onBattery(machine.files)).toBe(true);
  });
  test('heat', () => {
    const zone = 'sys/class/thermal/thermal_zone0';
    expect(isHot(machine.files)).toBeUndefined();
    machine.write(`${zone}/temp`, '61000\n');
    machine.write(`${zone}/trip_point_0_type`, 'active\n');
    machine.write(`${zone}/trip_point_0_temp`, '50000\n');
    machine.write(`${zone}/trip_point_1_type`, 'passive\n');
    machine.write(`${zone}/trip_point_1_temp`, '95000\n');
    machine.write(`${zone}/trip_point_2_type`, 'hot\n');
    machine.write(`${zone}/trip_point_2_temp`, '-274000\n');
    expect(isHot(machine.files)).toBe(false);
    machine.write(`${zone}/temp`, '95000\n');
    expect(isHot(machine.files)).toBe(true);
    machine.write(`${zone}/temp`, '60000\n');
    machine.write('sys/class/thermal/cooling_device0/type', 'Fan\n');
    machine.write('sys/class/thermal/cooling_device0/cur_state', '3\n');
    expect(isHot(machine.files)).toBe(false);
    machine.write('sys/class/thermal/cooling_device1/type', 'Processor\n');
    machine.write('sys/class/thermal/cooling_device1/cur_state', '3\n');
    expect(isHot(machine.files)).toBe(true);
  });
});

test('memory, and who waits for it', () => {
  expect([freeMemoryBytes(machine.files), isMemoryPressed(machine.files)]).toEqual([undefined, undefined]);
  machine.write('proc/meminfo', 'MemTotal:       100 kB\nMemAvailable:   2048 kB\n');
  machine.write('proc/pressure/memory', 'some avg10=9.99 avg60=80.00 avg300=0.00 total=1\nfull avg10=50.00\n');
  expect([freeMemoryBytes(machine.files), isMemoryPressed(machine.files)]).toEqual([2_097_152, false]);
  machine.write('proc/pressure/memory', 'some avg10=12.50 avg60=0.00 avg300=0.00 total=1\n');
  expect(isMemoryPressed(machine.files)).toBe(true);
});

test('a metered network, as NetworkManager says it', async () => {
  const told = (metered: string) => async () =>
    `GENERAL.DEVICE:wlan0\nGENERAL.METERED:${metered}\n\nGENERAL.DEVICE:lo\nGENERAL.METERED:unknown\n`;
  expect(await isMetered(machine.files, told('yes'))).toBeUndefined();
  machine.write('run/NetworkManager/conf', '');
  machine.write('proc/net/route', 'Iface\tDestination\tGateway\nwlan0\t00000000\t0101A8C0\neth0\t0001A8C0\t0\n');
  expect(await isMetered(machine.files, told('yes (guessed)'))).toBe(true);
  expect(await isMetered(machine.files, told('no (guessed)'))).toBe(false);
  expect(await isMetered(machine.files, silent)).toBeUndefined();
  // Another network than the one in use.
  machine.write('proc/net/route', 'Iface\tDestination\tGateway\neth0\t00000000\t0101A8C0\n');
  expect(await isMetered(machine.files, told('yes'))).toBe(false);
});

describe('programs', () => {
  test('one that is missing, fails or hangs says nothing', async () => {
    expect(await askProgram('no-such-program', [])).toBeUndefined();
    expect(await askProgram('false', [])).toBeUndefined();
    expect(await askProgram('sleep', ['60'])).toBeUndefined();
    expect(await askProgram('echo', ['told'])).toBe('told\n');
  });
  test('are asked now and then, and what they said holds meanwhile', async () => {
    let nowMs = 0;
    let asked = 0;
    const sensor = remembered(
      async () => (asked += 1),
      networkLookMs,
      () => nowMs,
    );
    expect(sensor.get()).toBeUndefined();
    await until(() => sensor.get() === 1);
    nowMs = networkLookMs - 1;
    expect(sensor.get()).toBe(1);
    nowMs = networkLookMs;
    sensor.get();
    await until(() => sensor.get() === 2);
    sensor[Symbol.dispose]();
    nowMs *= 3;
    sensor.get();
    expect(asked).toBe(2);
  });
});

describe('macOS', () => {
  test('reads its commands', () => {
    expect(sinceInputMs('  |   "HIDIdleTime" = 2500000000\n')).toBe(2_500);
    expect(drawsFromBattery("Now drawing from 'Battery Power'\n -InternalBattery-0 80%; discharging")).toBe(true);
    expect(drawsFromBattery("Now drawing from 'AC Power'\n")).toBe(false);
    expect(isThrottled('CPU_Scheduler_Limit \t= 100\nCPU_Speed_Limit \t= 70\n')).toBe(true);
    expect(isThrottled('Note: No thermal warning level has been recorded\n')).toBeUndefined();
    const pages = 'Pages free: 100.\nPages active: 999.\nPages inactive: 50.\nPages speculative: 10.\n';
    const text = `Mach Virtual Memory Statistics: (page size of 16384 bytes)\n${pages}`;
    expect(availableBytes(text)).toBe(160 * 16_384);
    for (const read of [sinceInputMs, drawsFromBattery, isThrottled, availableBytes]) {
      expect([read(undefined), read('nonsense')]).toEqual([undefined, undefined]);
    }
  });
  test('says nothing where its commands are missing', () => {
    using sensors = openMacSensors(silent, () => 0);
    expect(sensors.read()).toMatchObject({ inputAgoMs: undefined, onBattery: undefined, freeMemoryBytes: undefined });
  });
});

test('a Linux without any of its files tells nothing, and throws nothing', () => {
  const files = systemFiles('/nonexistent');
  using sensors = openLinuxSensors({ files, ask: silent, pid: 1, nowMs: () => 0, wallMs: () => 0 });
  expect(sensors.read()).toMatchObject({ ownerPermille: undefined, freeMemoryBytes: undefined, onBattery: undefined });
});

test('this machine can be read', () => {
  using sensors = openMachineSensors();
  expect(sensors.read().memoryBytes).toBeGreaterThan(0);
  if (process.platform === 'linux') expect(sensors.read().freeMemoryBytes).toBeGreaterThan(0);
});
