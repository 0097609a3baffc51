/*
** The test scripts handle database files from Tcl: they read and write bytes
** of them, ask for their sizes, copy and delete them. On Quire there is no such
** file, so these SQL functions do the same through the VFS, with the calls that
** SQLite itself makes:
**
**   vfs_size(NAME)                 bytes; NULL if there is no such database or journal
**   vfs_read(NAME, OFFSET, BYTES)  what is there, shorter at the end
**   vfs_write(NAME, OFFSET, BLOB)  one transaction
**   vfs_replace(NAME, BLOB)        one transaction; an empty blob empties the database
**   vfs_hold(ON)                   keeps the data directory open, or lets it go
**
** A loadable extension, so that it uses the SQLite that runs the script.
*/
#include <stdlib.h>
#include <string.h>
#include "sqlite3ext.h"
SQLITE_EXTENSION_INIT1

/* The VFS as the process's default: a name is a path. Scripts put others over it. */
#define VFS_NAME "quire-paths"

/* A file, opened below SQLite. */
typedef struct Opened {
  sqlite3_vfs *vfs;
  sqlite3_file *file;
  const char *name;
} Opened;

static int is_journal(const char *path){
  size_t n = strlen(path), end = strlen("-journal");
  return n>end && strcmp(path+n-end, "-journal")==0;
}

static int open_file(Opened *opened, const char *path, int flags){
  sqlite3_vfs *vfs = sqlite3_vfs_find(VFS_NAME);
  char *full = sqlite3_malloc(vfs->mxPathname + 1);
  int rc = full==0 ? SQLITE_NOMEM : vfs->xFullPathname(vfs, path, vfs->mxPathname + 1, full);
  opened->vfs = vfs;
  opened->name = rc==SQLITE_OK ? sqlite3_create_filename(full, "", "", 0, 0) : 0;
  opened->file = sqlite3_malloc(vfs->szOsFile);
  sqlite3_free(full);
  if( rc==SQLITE_OK && (opened->name==0 || opened->file==0) ) rc = SQLITE_NOMEM;
  if( rc==SQLITE_OK ){
    flags |= SQLITE_OPEN_READWRITE | (is_journal(path) ? SQLITE_OPEN_MAIN_JOURNAL : SQLITE_OPEN_MAIN_DB);
    memset(opened->file, 0, vfs->szOsFile);
    rc = vfs->xOpen(vfs, opened->name, opened->file, flags, 0);
  }
  return rc;
}

static void close_file(Opened *opened){
  if( opened->file && opened->file->pMethods ) opened->file->pMethods->xClose(opened->file);
  sqlite3_free(opened->file);
  sqlite3_free_filename((char*)opened->name);
}

static void fail(sqlite3_context *context, int rc, const char *path){
  char *text = sqlite3_mprintf("%s: the VFS answered %d", path, rc);
  sqlite3_result_error(context, text, -1);
  sqlite3_free(text);
}

static void size_of(sqlite3_context *context, int n, sqlite3_value **values){
  const char *path = (const char*)sqlite3_value_text(values[0]);
  Opened opened;
  sqlite3_int64 size = 0;
  if( open_file(&opened, path, 0)==SQLITE_OK ){
    int rc = opened.file->pMethods->xFileSize(opened.file, &size);
    if( rc==SQLITE_OK ) sqlite3_result_int64(context, size); else fail(context, rc, path);
  }
  close_file(&opened);
}

static void read_of(sqlite3_context *context, int n, sqlite3_value **values){
  const char *path = (const char*)sqlite3_value_text(values[0]);
  sqlite3_int64 offset = sqlite3_value_int64(values[1]), size = 0, amount = sqlite3_value_int64(values[2]);
  Opened opened;
  int rc = open_file(&opened, path, 0);
  if( rc==SQLITE_OK ) rc = opened.file->pMethods->xFileSize(opened.file, &size);
  if( rc==SQLITE_OK ){
    if( amount>size-offset ) amount = size-offset;
    if( amount>0 ){
      void *bytes = sqlite3_malloc64(amount);
      rc = bytes==0 ? SQLITE_NOMEM : opened.file->pMethods->xRead(opened.file, bytes, (int)amount, offset);
      if( rc==SQLITE_OK ) sqlite3_result_blob64(context, bytes, amount, SQLITE_TRANSIENT);
      sqlite3_free(bytes);
    }else{
      sqlite3_result_zeroblob(context, 0);
    }
  }
  if( rc!=SQLITE_OK ) fail(context, rc, path);
  close_file(&opened);
}

/* The page size that a database's header declares. */
static int page_size(const unsigned char *bytes, int n){
  int size = n>=18 && memcmp(bytes, "SQLite format 3", 16)==0 ? bytes[16]<<8 | bytes[17] : 0;
  if( size==1 ) return 65536;
  return size>=512 && (size & (size-1))==0 ? size : 512;
}

/* One transaction, with the calls that SQLite makes for one. */
static int put(const char *path, sqlite3_int64 offset, const unsigned char *bytes, int n, int replace){
  Opened opened;
  int rc = open_file(&opened, path, SQLITE_OPEN_CREATE);
  if( rc==SQLITE_OK ){
    sqlite3_file *file = opened.file;
    const sqlite3_io_methods *call = file->pMethods;
    int part = page_size(bytes, n), at = 0;
    rc = call->xLock(file, SQLITE_LOCK_SHARED);
    if( rc==SQLITE_OK ) rc = call->xLock(file, SQLITE_LOCK_RESERVED);
    if( rc==SQLITE_OK ) rc = call->xLock(file, SQLITE_LOCK_EXCLUSIVE);
    if( rc==SQLITE_OK && replace ) rc = call->xTruncate(file, 0);
    while( rc==SQLITE_OK && at<n ){
      /* A new file learns its page size from the first write. */
      int now = n-at<part ? n-at : part;
      unsigned char *page = sqlite3_malloc(part);
      if( page==0 ){ rc = SQLITE_NOMEM; break; }
      memset(page, 0, part);
      memcpy(page, bytes+at, now);
      rc = call->xWrite(file, page, replace ? part : now, offset+at);
      sqlite3_free(page);
      at += now;
    }
    if( rc==SQLITE_OK ){
      rc = call->xFileControl(file, SQLITE_FCNTL_SYNC, 0);
      if( rc==SQLITE_NOTFOUND ) rc = SQLITE_OK;
    }
    if( rc==SQLITE_OK ){
      rc = call->xFileControl(file, SQLITE_FCNTL_COMMIT_PHASETWO, 0);
      if( rc==SQLITE_NOTFOUND ) rc = SQLITE_OK;
    }
    call->xUnlock(file, SQLITE_LOCK_NONE);
  }
  close_file(&opened);
  return rc;
}

static void write_of(sqlite3_context *context, int n, sqlite3_value **values){
  const char *path = (const char*)sqlite3_value_text(values[0]);
  const unsigned char *bytes = sqlite3_value_blob(values[2]);
  int rc = put(path, sqlite3_value_int64(values[1]), bytes, sqlite3_value_bytes(values[2]), 0);
  if( rc!=SQLITE_OK ) fail(context, rc, path);
}

static void replace_of(sqlite3_context *context, int n, sqlite3_value **values){
  const char *path = (const char*)sqlite3_value_text(values[0]);
  const unsigned char *bytes = sqlite3_value_blob(values[1]);
  int rc = put(path, 0, bytes, sqlite3_value_bytes(values[1]), 1);
  if( rc!=SQLITE_OK ) fail(context, rc, path);
}

/* Most scripts open and close their one database hundreds of times. A file that is held spares the data
** directory's closing and opening in between. It is no connection, and takes no memory of SQLite's. */
static sqlite3_file *held = 0;

static void hold_of(sqlite3_context *context, int n, sqlite3_value **values){
  /* A name is followed by its parameters: none. */
  static const char name[] = "\0\0\0\0/held\0\0\0\0";
  int wanted = sqlite3_value_int(values[0]);
  if( wanted && held==0 ){
    sqlite3_vfs *vfs = sqlite3_vfs_find(VFS_NAME);
    int flags = SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    int rc = SQLITE_NOMEM;
    held = calloc(1, vfs->szOsFile);
    if( held ) rc = vfs->xOpen(vfs, name+4, held, flags, 0);
    if( rc!=SQLITE_OK ) fail(context, rc, name+4);
  }
  if( !wanted && held ){
    if( held->pMethods ) held->pMethods->xClose(held);
    free(held);
    held = 0;
  }
}

int sqlite3_files_init(sqlite3 *db, char **error, const sqlite3_api_routines *api){
  SQLITE_EXTENSION_INIT2(api);
  sqlite3_create_function(db, "vfs_size", 1, SQLITE_UTF8, 0, size_of, 0, 0);
  sqlite3_create_function(db, "vfs_read", 3, SQLITE_UTF8, 0, read_of, 0, 0);
  sqlite3_create_function(db, "vfs_write", 3, SQLITE_UTF8, 0, write_of, 0, 0);
  sqlite3_create_function(db, "vfs_replace", 2, SQLITE_UTF8, 0, replace_of, 0, 0);
  sqlite3_create_function(db, "vfs_hold", 1, SQLITE_UTF8, 0, hold_of, 0, 0);
  /* What is held must outlive this connection. */
  return SQLITE_OK_LOAD_PERMANENTLY;
}
