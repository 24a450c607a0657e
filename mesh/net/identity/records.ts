/** Signs and checks what members say about themselves, for the membership machine. */
import { Buffer } from 'node:buffer';
import type { MemberRecord, RecordSigner } from '../../core/membership/records.ts';
import type { Identity } from './identity.ts';
import type { Domain } from './keys.ts';
import type { Roster } from './roster.ts';

const domain: Domain = 'potluck/member-record/1';

/** Records verify for members with a certificate, and for this mesh only: its id is part of what is signed. */
export function recordSigner(identity: Identity, roster: Pick<Roster, 'get'>): RecordSigner {
  return {
    sign(record) {
      const signature = Buffer.from(identity.sign(domain, statement(identity.mesh.id, record))).toString('base64');
      return { ...record, signature };
    },
    verify(record) {
      // A former member can still sign, and so can a key that somebody made up; both find somebody who passes it on.
      if (!roster.get(record.id)) return false;
      const bytes = statement(identity.mesh.id, record);
      return identity.verify(record.id, domain, bytes, Buffer.from(record.signature, 'base64'));
    },
  };
}

/** All fields but the signature, in a fixed order. */
function statement(meshId: string, { id, incarnation, presence, attributes }: Omit<MemberRecord, 'signature'>): Buffer {
  const { site, subnet, dataAddress, cores, memoryBytes, power, wired, coordinator, storeGeneration } = attributes;
  const { guestSlots, capabilities } = attributes;
  const machine = [site, subnet, dataAddress, cores, memoryBytes, power, wired, coordinator, storeGeneration];
  return Buffer.from(JSON.stringify([meshId, id, incarnation, presence, ...machine, guestSlots, capabilities]));
}
