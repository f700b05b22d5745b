"""Uses python-etcd (Debian's python3-etcd) as programs do: smoke.py HOST PORT MEMBERS.

Exits with 0 if the server behaves as the library expects. Users and roles are off again then.
"""
import sys
import threading

import etcd
from etcd import auth

host, port, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


def connect(**kwargs):
    return etcd.Client(host=host, port=port, read_timeout=30, **kwargs)


def refused(error, f, *args, **kwargs):
    try:
        f(*args, **kwargs)
    except error as e:
        return e
    raise AssertionError('%r%r was not refused' % (f, args))


c = connect()

# Keys.
assert c.write('/py/a', 'one').value == 'one'
assert c.get('/py/a').value == 'one'
first = c.write('/py/a', 'two')
assert first.action == 'set' and first._prev_node.value == 'one'
assert c.read('/py/a', quorum=True).modifiedIndex == first.modifiedIndex
assert c.set('/py/ü/<x>', 'gr\u00fc\u00dfe & <b>').value == 'gr\u00fc\u00dfe & <b>'
refused(etcd.EtcdKeyNotFound, c.read, '/py/none')
refused(etcd.EtcdNotDir, c.write, '/py/a/b', 'x')
refused(etcd.EtcdNotFile, c.write, '/py', 'x')
refused(etcd.EtcdAlreadyExist, c.write, '/py/a', 'x', prevExist=False)
refused(etcd.EtcdDirNotEmpty, c.delete, '/py', dir=True)
assert '/py/a' in c and '/py/none' not in c
assert sorted(k.key for k in c.read('/py', recursive=True).leaves) == ['/py/a', '/py/ü/<x>']
assert c.write('/py/q', 'job', append=True).key < c.write('/py/q', 'job', append=True).key
assert c.write('/py/dir', None, dir=True).dir
node = c.get('/py/a')
node.value = 'three'
c.update(node)
assert c.get('/py/a').value == 'three'
assert c.pop('/py/a').value == 'three'
refused(etcd.EtcdKeyNotFound, c.delete, '/py/a')

# Time to live.
assert 0 < c.write('/py/t', 'x', ttl=100).ttl <= 100
assert c.refresh('/py/t', 200).ttl > 100
c.write('/py/gone', 'x', ttl=1)
assert c.watch('/py/gone').action == 'expire'

# Compare and swap.
c.write('/py/c', '1')
assert c.test_and_set('/py/c', '2', '1').value == '2'
refused(etcd.EtcdCompareFailed, c.test_and_set, '/py/c', '3', '1')
refused(etcd.EtcdCompareFailed, c.write, '/py/c', '3', prevIndex=1)
refused(etcd.EtcdCompareFailed, c.delete, '/py/c', prevValue='1')
assert c.delete('/py/c', prevValue='2').action == 'compareAndDelete'

# Watches: of the past, and of what another thread does meanwhile.
start = c.write('/py/w/0', '0').modifiedIndex
for i in range(1, 5):
    c.write('/py/w/%d' % i, str(i))
assert c.watch('/py/w', index=start + 1, recursive=True).key == '/py/w/1'
seen = []


def follow():
    for event in connect().eternal_watch('/py/w', index=start, recursive=True):
        seen.append((event.action, event.key))
        if event.key == '/py/w/end':
            return


follower = threading.Thread(target=follow, daemon=True)
follower.start()
c.delete('/py/w/0')
c.write('/py/w/end', 'x')
follower.join(60)
assert seen == [('set', '/py/w/%d' % i) for i in range(5)] + [('delete', '/py/w/0'), ('set', '/py/w/end')], seen
refused(etcd.EtcdWatchTimedOut, c.watch, '/py/w/never', timeout=1)

# Locks: in-order keys with a time to live.
mine, theirs = etcd.Lock(c, 'deploy'), etcd.Lock(connect(), 'deploy')
assert mine.acquire(lock_ttl=60) and mine.is_acquired
assert not theirs.acquire(blocking=False, lock_ttl=60)
mine.release()
assert theirs.acquire(blocking=True, lock_ttl=60, timeout=60)
theirs.release()
with etcd.Lock(c, 'other') as held:
    assert held.is_acquired

# The cluster.
assert len(c.members) == size, c.members
assert c.leader['id'] in c.members and c.leader['peerURLs']
assert len(c.machines) >= size
assert c.stats['id'] in c.members
assert c.store_stats['setsSuccess'] > 0
reconnecting = etcd.Client(host=((host, port), ('127.0.0.1', 1)), allow_reconnect=True)
assert reconnecting.read('/py/w/end').value == 'x'

# Users and roles.
root = auth.EtcdUser(c, 'root')
root.password = 'secret'
root.write()
role = auth.EtcdRole(c, 'py')
role.grant('/py/*', 'RW')
role.grant('/ro', 'R')
role.write()
user = auth.EtcdUser(c, 'alice')
user.password, user.roles = 'a', ['py']
user.write()
switch = auth.Auth(c)
assert not switch.active
switch.active = True
try:
    admin = connect(username='root', password='secret')
    assert auth.Auth(admin).active
    refused(etcd.EtcdException, auth.EtcdUser(c, 'alice').read)
    assert [u['user'] for u in auth.EtcdUser(admin, 'root').names] == ['alice', 'root']
    assert [r['role'] for r in auth.EtcdRole(admin, 'py').names] == ['guest', 'py', 'root']
    guest = auth.EtcdRole(admin, 'guest')
    guest.read()
    guest.revoke('/*', 'RW')
    guest.write()
    alice = connect(username='alice', password='a')
    assert alice.write('/py/alice', 'x').value == 'x'
    refused(etcd.EtcdKeyNotFound, alice.read, '/ro')
    refused(etcd.EtcdInsufficientPermissions, alice.write, '/ro', 'x')
    refused(etcd.EtcdInsufficientPermissions, connect(username='alice', password='b').read, '/py/alice')
    refused(etcd.EtcdInsufficientPermissions, c.read, '/py/alice')
finally:
    auth.Auth(connect(username='root', password='secret')).active = False
for name in ('alice', 'root'):
    auth.EtcdUser(c, name).delete()
auth.EtcdRole(c, 'py').delete()
c.delete('/py', recursive=True)
