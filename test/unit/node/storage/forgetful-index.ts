/** The index of LMDB behind a queue that power loss empties: what was not reported durable may or may not be there. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { FsPort } from '../../../../node/storage/fs-port.ts';
import { type LmdbIndexOptions, openLmdbIndex } from '../../../../node/storage/lmdb-index.ts';
import type { StoreIndex } from '../../../../node/storage/store-index.ts';
import type { Random } from './random.ts';

export interface ForgetfulIndex {
  open(options: LmdbIndexOptions): Promise<StoreIndex>;
  losePower(): Promise<void>;
}

/** `fs` keeps the name of LMDB's file: an index whose name was lost is lost with it. */
export function createForgetfulIndex(random: Random, fs: () => FsPort): ForgetfulIndex {
  let current: { readonly real: StoreIndex; committing: Promise<void>; isLost: boolean } | undefined;
  let wasLost = false;

  return {
    async open(options) {
      const name = join(options.path, 'data.mdb');
      if ((await fs().list(options.path)).length === 0) {
        await rm(options.path, { recursive: true, force: true });
        const file = await fs().create(name, 0o644);
        // LMDB syncs its files by itself.
        await file.sync();
        await file.close();
      }
      const state = { real: await openLmdbIndex(options), committing: Promise.resolve(), isLost: false };
      current = state;
      const { real } = state;
      return {
        ...real,
        closedCleanly: !wasLost,
        async commit(changes) {
          for (let turns = random.below(4); turns > 0; turns--) await new Promise(setImmediate);
          if (state.isLost && random.next() < 0.5) return new Promise(() => {});
          state.committing = real.commit(changes);
          await state.committing;
          if (state.isLost) return new Promise(() => {});
        },
      };
    },
    async losePower() {
      if (!current) return;
      wasLost = true;
      current.isLost = true;
      // Turns enough for a commit that was waiting to be lost or to get through.
      for (let turns = 0; turns < 5; turns++) await new Promise(setImmediate);
      await current.committing;
      await current.real.close({ isTidy: true });
    },
  };
}
