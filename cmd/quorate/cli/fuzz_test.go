package cli

import "testing"

// FuzzEtcdSnapshotData reads what need not be a file of etcd.
func FuzzEtcdSnapshotData(f *testing.F) {
	f.Add([]byte{0x08, 0xb5, 0xd4, 0x8d, 0x01, 0x12, 0x04, 0x0a, 0x02, '{', '}'})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if data, err := etcdSnapshotData(b); err == nil && len(data) == 0 {
			t.Error("no state, and no error")
		}
	})
}
