package disk

func heldByChild() bool { return false }
