keyLatchStatus - Failed to acquire key details: Key(KeyResponse("acquire", 403))
