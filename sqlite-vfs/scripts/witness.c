/*
** Tells of each connection that is opened after this extension was loaded which
** VFS its database is on, as a line `VFS <tab> FILE` in the file that the
** environment names (SCRIPTS_WITNESS). So it shows whether a program that knows
** nothing of Quire worked on it.
*/
#include <stdio.h>
#include <stdlib.h>
#include "sqlite3ext.h"
SQLITE_EXTENSION_INIT1

static int on_open(sqlite3 *db, char **error, const sqlite3_api_routines *api){
  const char *file = sqlite3_db_filename(db, "main");
  const char *path = getenv("SCRIPTS_WITNESS");
  char *vfs = 0;
  FILE *out;
  /* No name: in memory, or a temporary file. */
  if( file==0 || file[0]==0 ) return SQLITE_OK;
  out = path ? fopen(path, "a") : 0;
  if( out==0 ){
    *error = sqlite3_mprintf("SCRIPTS_WITNESS names no file that can be written");
    return SQLITE_ERROR;
  }
  sqlite3_file_control(db, "main", SQLITE_FCNTL_VFSNAME, &vfs);
  fprintf(out, "%s\t%s\n", vfs ? vfs : "unknown", file);
  sqlite3_free(vfs);
  return fclose(out)==0 ? SQLITE_OK : SQLITE_IOERR;
}

int sqlite3_witness_init(sqlite3 *db, char **error, const sqlite3_api_routines *api){
  int rc;
  SQLITE_EXTENSION_INIT2(api);
  rc = sqlite3_auto_extension((void(*)(void))on_open);
  return rc==SQLITE_OK ? SQLITE_OK_LOAD_PERMANENTLY : rc;
}
