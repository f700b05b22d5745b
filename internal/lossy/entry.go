//go:build linux

package lossy

import (
	"context"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// entry shows a node to the kernel. Nothing depends on which handle of a file is used.
type entry struct {
	fs.Inode
	disk *Disk
	node *node
}

// The interfaces that the library looks for.
var (
	_ fs.NodeLookuper       = (*entry)(nil)
	_ fs.NodeGetattrer      = (*entry)(nil)
	_ fs.NodeSetattrer      = (*entry)(nil)
	_ fs.NodeMkdirer        = (*entry)(nil)
	_ fs.NodeCreater        = (*entry)(nil)
	_ fs.NodeUnlinker       = (*entry)(nil)
	_ fs.NodeRmdirer        = (*entry)(nil)
	_ fs.NodeRenamer        = (*entry)(nil)
	_ fs.NodeOpener         = (*entry)(nil)
	_ fs.NodeReader         = (*entry)(nil)
	_ fs.NodeWriter         = (*entry)(nil)
	_ fs.NodeFsyncer        = (*entry)(nil)
	_ fs.NodeAllocater      = (*entry)(nil)
	_ fs.NodeGetxattrer     = (*entry)(nil)
	_ fs.NodeSetxattrer     = (*entry)(nil)
	_ fs.NodeStatfser       = (*entry)(nil)
	_ fs.NodeOpendirHandler = (*entry)(nil)
	_ fs.FileReaddirenter   = (*directory)(nil)
	_ fs.FileFsyncdirer     = (*directory)(nil)
)

// describe writes the attributes of n. Called with Disk.mu held.
func (n *node) describe(a *fuse.Attr) {
	a.Ino, a.Mode, a.Nlink = n.ino, n.mode, 1
	a.Size, a.Blocks, a.Blksize = uint64(n.size), uint64(len(n.sectors)), 4096
	a.SetTimes(&n.mtime, &n.mtime, &n.mtime)
}

// child returns the inode of a node. Called with Disk.mu held.
func (e *entry) child(ctx context.Context, n *node, out *fuse.EntryOut) *fs.Inode {
	n.describe(&out.Attr)
	return e.NewInode(ctx, &entry{disk: e.disk, node: n}, fs.StableAttr{Mode: n.mode & syscall.S_IFMT, Ino: n.ino})
}

// Lookup finds a name in a directory.
func (e *entry) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	e.disk.mu.Lock()
	defer e.disk.mu.Unlock()
	n := e.node.names[name]
	if n == nil {
		return nil, syscall.ENOENT
	}
	return e.child(ctx, n, out), 0
}

// Getattr is stat.
func (e *entry) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	e.disk.mu.Lock()
	defer e.disk.mu.Unlock()
	e.node.describe(&out.Attr)
	return 0
}

// Setattr is truncate and chmod; there is one owner and no other time than that of the last change.
func (e *entry) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	e.disk.mu.Lock()
	defer e.disk.mu.Unlock()
	if errno := e.disk.mayChange(); errno != 0 {
		return errno
	}
	if size, ok := in.GetSize(); ok {
		e.node.truncate(int64(size))
	}
	if mode, ok := in.GetMode(); ok {
		e.node.mode = e.node.mode&syscall.S_IFMT | mode&^uint32(syscall.S_IFMT)
	}
	e.node.describe(&out.Attr)
	return 0
}

// OpendirHandle opens a directory.
func (e *entry) OpendirHandle(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	e.disk.mu.Lock()
	defer e.disk.mu.Unlock()
	var list []fuse.DirEntry
	for name, n := range e.node.names {
		list = append(list, fuse.DirEntry{Name: name, Mode: n.mode, Ino: n.ino})
	}
	slices.SortFunc(list, func(a, b fuse.DirEntry) int { return strings.Compare(a.Name, b.Name) })
	return &directory{entry: e, list: list}, 0, 0
}

// directory is a directory that is open.
type directory struct {
	entry *entry
	list  []fuse.DirEntry // that were not read yet
}

// Readdirent returns the next name, or nil.
func (h *directory) Readdirent(context.Context) (*fuse.DirEntry, syscall.Errno) {
	if len(h.list) == 0 {
		return nil, 0
	}
	first := h.list[0]
	h.list = h.list[1:]
	return &first, 0
}

// Fsyncdir brings the names in a directory to the disk.
func (h *directory) Fsyncdir(context.Context, uint32) syscall.Errno {
	return h.entry.disk.sync(h.entry.node.reachDisk)
}

// add makes a node in a directory. Called with Disk.mu held.
func (e *entry) add(name string, mode uint32) (*node, syscall.Errno) {
	if errno := e.disk.mayChange(); errno != 0 {
		return nil, errno
	}
	if e.node.names[name] != nil {
		return nil, syscall.EEXIST
	}
	e.disk.ino++
	n := newNode(e.disk.ino, mode)
	e.node.names[name] = n
	return n, 0
}

// Mkdir makes a directory.
func (e *entry) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	e.disk.mu.Lock()
	defer e.disk.mu.Unlock()
	n, errno := e.add(name, mode|fuse.S_IFDIR)
	if errno != 0 {
		return nil, errno
	}
	return e.child(ctx, n, out), 0
}

// Create makes a file.
func (e *entry) Create(ctx context.Context, name string, _, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	e.disk.mu.Lock()
	defer e.disk.mu.Unlock()
	n, errno := e.add(name, mode|fuse.S_IFREG)
	if errno != 0 {
		return nil, nil, 0, errno
	}
	return e.child(ctx, n, out), nil, 0, 0
}

// Unlink deletes the name of a file.
func (e *entry) Unlink(_ context.Context, name string) syscall.Errno { return e.remove(name) }

// Rmdir deletes an empty directory.
func (e *entry) Rmdir(_ context.Context, name string) syscall.Errno { return e.remove(name) }

func (e *entry) remove(name string) syscall.Errno {
	e.disk.mu.Lock()
	defer e.disk.mu.Unlock()
	if e.disk.faults.ReadOnly {
		return syscall.EROFS
	}
	if n := e.node.names[name]; n == nil {
		return syscall.ENOENT
	} else if len(n.names) > 0 {
		return syscall.ENOTEMPTY
	}
	delete(e.node.names, name)
	return 0
}

// Rename gives a file or a directory another name.
func (e *entry) Rename(_ context.Context, name string, newParent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	e.disk.mu.Lock()
	defer e.disk.mu.Unlock()
	if flags != 0 {
		return syscall.EINVAL
	}
	if e.disk.faults.ReadOnly {
		return syscall.EROFS
	}
	to := newParent.(*entry).node
	n := e.node.names[name]
	if n == nil {
		return syscall.ENOENT
	}
	if old := to.names[newName]; old != nil && len(old.names) > 0 {
		return syscall.ENOTEMPTY
	}
	delete(e.node.names, name)
	to.names[newName] = n
	return 0
}

// Open opens a file; O_TRUNC comes as Setattr.
func (e *entry) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	e.disk.mu.Lock()
	defer e.disk.mu.Unlock()
	if e.disk.faults.ReadOnly && flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		return nil, 0, syscall.EROFS
	}
	return nil, 0, 0
}

// Read reads from a file.
func (e *entry) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	e.disk.mu.Lock()
	defer e.disk.mu.Unlock()
	return fuse.ReadResultData(e.node.read(dest, off)), 0
}

// Write writes to a file.
func (e *entry) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	d := e.disk
	d.mu.Lock()
	delay := d.faults.WriteDelay
	d.mu.Unlock()
	time.Sleep(delay)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.faults.Room >= 0 { // else there may be room where something is already
		if errno := d.mayChange(); errno != 0 {
			return 0, errno
		}
	}
	if d.faults.ShortWrites && len(data) > sectorSize {
		data = data[:1+d.rng.IntN(len(data)-1)]
	}
	n, errno := e.node.write(d, data, off)
	return uint32(n), errno
}

// Fsync brings the content of a file to the disk.
func (e *entry) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	return e.disk.sync(func() {
		e.node.reachDisk()
		e.disk.syncs++
	})
}

// Allocate is fallocate, of the kind that only makes a file larger.
func (e *entry) Allocate(_ context.Context, _ fs.FileHandle, off, size uint64, mode uint32) syscall.Errno {
	e.disk.mu.Lock()
	defer e.disk.mu.Unlock()
	if mode != 0 {
		return syscall.EOPNOTSUPP
	}
	if errno := e.disk.mayChange(); errno != 0 {
		return errno
	}
	if end := int64(off + size); end > e.node.size {
		e.node.truncate(end)
	}
	return 0
}

// Getxattr says that there are no extended attributes.
func (e *entry) Getxattr(context.Context, string, []byte) (uint32, syscall.Errno) {
	return 0, syscall.EOPNOTSUPP
}

// Setxattr says that there are no extended attributes.
func (e *entry) Setxattr(context.Context, string, []byte, uint32) syscall.Errno {
	return syscall.EOPNOTSUPP
}

// Statfs says how much room there is.
func (e *entry) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	e.disk.mu.Lock()
	defer e.disk.mu.Unlock()
	out.Bsize, out.Frsize, out.NameLen = 4096, 4096, 255
	out.Blocks, out.Bfree = 1<<24, 1<<24 // 64 GiB
	if room := e.disk.faults.Room; room != 0 {
		out.Bfree = uint64(max(room, 0)) / 4096
	}
	out.Bavail = out.Bfree
	return 0
}
